"""What runs on the cluster. Python 3.8, standard library only: it is sent as source, and runs on whatever Python the image has.

Its modules import each other relatively, since the cluster knows the package by another name.
"""
