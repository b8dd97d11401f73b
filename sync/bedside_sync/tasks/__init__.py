"""What the one secure sum is used for: each task turns patients into integers and a sum into news.

Pure: a task knows its vector, what one patient can change in it, and how the sum is read.
"""
