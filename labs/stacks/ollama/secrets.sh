#!/bin/sh
# Makes what the proxy needs to know and nobody else: a key, and a certificate for localhost, signed by an authority of its own.
#
#   sh secrets.sh FOLDER
#
# FOLDER gets api_key, tls_key (readable by the proxy alone), tls_cert, and for clients ca_cert and client_key (yours). The
# authority's own key is deleted at the end: it can sign nothing else. Valid for 30 days; run it again then.
set -eu
umask 077
folder=${1:?sh secrets.sh FOLDER}
owner=${OWNER:-10001}
mkdir -p "$folder"
cd "$folder"
rm -f api_key tls_key tls_cert ca_cert client_key

curve="-newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes"
# shellcheck disable=SC2086 # several words on purpose
openssl req -x509 $curve -days 30 -subj "/CN=authority of this stack" -keyout ca_key -out ca_cert \
    -addext "basicConstraints=critical,CA:TRUE,pathlen:0" -addext "keyUsage=critical,keyCertSign" 2> /dev/null
# shellcheck disable=SC2086
openssl req -new $curve -subj "/CN=localhost" -keyout tls_key -out request 2> /dev/null
printf '%s\n' "subjectAltName=DNS:localhost,IP:127.0.0.1" "basicConstraints=critical,CA:FALSE" \
    "keyUsage=critical,digitalSignature" "extendedKeyUsage=serverAuth" "subjectKeyIdentifier=hash" "authorityKeyIdentifier=keyid" > extensions
openssl x509 -req -in request -CA ca_cert -CAkey ca_key -CAcreateserial -days 30 -extfile extensions -out tls_cert 2> /dev/null
rm -f ca_key ca_cert.srl request extensions
openssl rand -hex 32 > api_key
cp api_key client_key
chmod 0644 tls_cert ca_cert

# the proxy runs as user 10001, and a mounted file keeps its owner
if [ "$(id -u)" = 0 ]; then
    chown "$owner:$owner" api_key tls_key
elif command -v podman > /dev/null; then
    podman unshare chown "$owner:$owner" api_key tls_key
else
    echo "with Docker and without root: start the stack with RUN_AS=$(id -u):$(id -g)" >&2
fi
