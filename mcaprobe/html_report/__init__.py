"""One HTML file from finished runs, mask files, NaN maps and CSV rows; report.py puts it together."""
