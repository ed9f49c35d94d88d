"""newsbert's own server: one asyncio process on uvicorn, without Java and without torch."""
