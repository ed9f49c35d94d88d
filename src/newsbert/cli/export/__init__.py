"""`newsbert export`: files of a model that other systems read."""
