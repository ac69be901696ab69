"""What does a campaign over all subjects of a BIDS dataset look like? A BIDS App: participant level, group level."""
