"""What does it cost that many processes append to one conversation?"""
