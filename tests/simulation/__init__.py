"""
The real relay in a simulated world: `EventProducer` over ports whose database, broker, clocks and
processes fail by a seed, in virtual time, with an oracle that looks at every step.
"""
