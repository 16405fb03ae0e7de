"""What does everything share? Records, errors, the machine, result files, folders."""
