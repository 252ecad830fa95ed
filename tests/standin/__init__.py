"""A stand-in for the SkyPilot API server: same answers, no clouds, and every fault at the push of a button.

    rest.py      the REST interface, as SkyPilot 0.14.1 answers it       control.py    the script, by call or over HTTP
    workers.py   what a launch, a down, a cancellation do to the world   world.py      clusters, requests, jobs: state
    users.py     who may call; a database that can be lost
    script.py    how long things take and how they end                   recorded.py   a real server's rows and errors

tests/contract runs one list of calls against this and against a real server, so that the two can't drift apart.
It may import nothing of the product: what it knows of SkyPilot comes from SkyPilot.
"""
