"""What tests share: commands run as a person runs them, small files, and servers on this machine."""
