"""Where tasks run: `direct` on workers of our own, `batch` on clusters."""
