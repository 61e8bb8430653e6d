"""Is this checkout faster or slower than another commit?"""
