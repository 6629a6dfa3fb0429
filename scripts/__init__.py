"""What operators and the Makefile run beside `manage.py`. Nothing in the applications imports it."""
