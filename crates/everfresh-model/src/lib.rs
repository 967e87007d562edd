//! The specification of everfresh's rules of freshness: see `tests/model`.
