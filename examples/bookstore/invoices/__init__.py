"""
The second service: it writes an invoice for each sale, once, however often it hears of the sale.
"""
