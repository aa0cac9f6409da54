//! Proofs and benchmarks, one file per question.
