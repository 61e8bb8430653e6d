"""What does a turn of Chat cost on top of the store's operations that it needs?"""
