"""People as judges: a folder of blind trials to be handed out, and what their answers say of a report.

`pack` writes the folder and the key that stays at home, `answers` reads what comes back, and `ratings` adds it to the
report that the pack was made with.
"""
