"""Measurements, not tests: these machines' clocks are noisy and a timed test is a flaky one."""
