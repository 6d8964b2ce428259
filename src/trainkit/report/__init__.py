"""What only observes: sinks for the console and the files of the run folder."""
