"""The tabs of the page, one a module: each adds its components and connects them."""
