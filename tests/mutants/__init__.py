"""For each invariant the bugs that would break it, as small patches of the source, and the test that each is found by.

table.py       the mutants      __main__.py    `make mutants`: applies each in a copy, and wants its test to fail there
document.py    docs/design/invariants.md, made of the table; tests/unit/test_mutants.py keeps the two together
"""
