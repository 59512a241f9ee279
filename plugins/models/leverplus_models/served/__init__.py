"""A model behind one or several servers: the part, its requests, its pictures, and what each kind of server can do."""
