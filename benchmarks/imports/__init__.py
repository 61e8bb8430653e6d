"""What does `import tokenmem` cost a process?"""
