"""What finds nodules: the networks of this project, and any model that the user brings."""
