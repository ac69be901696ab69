"""What do the networks of the comparison learn: synthetic heads within minutes, or the structures of real brains?"""
