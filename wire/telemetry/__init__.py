"""What both servers tell of their requests: logs, phases and traces."""
