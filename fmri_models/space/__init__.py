"""The demo as a web page: what is decoded and shown, which needs no Gradio, and the page itself (`page.py`)."""
