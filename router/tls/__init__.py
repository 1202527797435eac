"""Certificates: PEM files to what is in them, and to the contexts that connections are made with.

Control reads the files, once for all workers; both planes build contexts from the texts. Nothing
here knows a connection.
"""
