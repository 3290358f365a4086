//! That the comparison can fail: by rules that are wrong on purpose, and by every single bit.
