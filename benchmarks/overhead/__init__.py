"""What does tokenmem's Python cost on top of the same SQL on the bare driver?"""
