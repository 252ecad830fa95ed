"""A world that moves at random around the real rules and the real reconcile.py; tests/unit/test_machine.py draws the moves.

    server.py      SkyPilot as a value: requests, workers, one cluster, its jobs; what moves next is drawn
    door.py        the controller's client of it: outages, lost answers, launches that arrive late or twice
    eyes.py        observe.py without an event loop: what a look shows, and how old it may be
    process.py     the controller's process: a pass that stops before each of its calls, and dies there
    invariants.py  what must hold after each step
    stage.py       all of that together, with the clock and the user

One object, one cluster name; two servers, for the endpoint may be changed.
"""
