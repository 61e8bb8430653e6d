"""The database beneath: URLs, engines, statements, the tables, migrations, and the drivers' errors."""
