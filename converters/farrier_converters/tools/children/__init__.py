"""What runs in a tool's own process: one module per tool, with a function `answer(request) -> answer`.

They import nothing but the standard library and their tool, inside the function that needs it.
"""
