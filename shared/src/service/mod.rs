//! The scoring function's requests and answers, whoever carries them.
