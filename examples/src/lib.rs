//! Runnable examples; each asserts its own result.
