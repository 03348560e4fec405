"""The examiner: the process that a watchdog starts when something takes too long."""
