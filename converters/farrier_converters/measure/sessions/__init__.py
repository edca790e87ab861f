"""Engines that are no part of Farrier's base, in an environment of their own where need be (see `tools`).

A session imports its engine, numpy and Farrier's contracts, and nothing else.
"""
