"""One list of calls, asked of the stand-in and of a real SkyPilot API server: what holds for one must hold for both.

    cases.py    the calls and what must be answered       stage.py    the server they are asked of
    shapes.py   the fields of rows and their types, recorded from a real server in shapes.json

tests/integration/test_contract.py asks the stand-in, tests/e2e/test_contract.py a real server.
"""
