"""What operators and the Makefile run beside `manage.py`. No application imports any of it."""
