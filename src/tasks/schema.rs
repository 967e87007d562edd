//! The tables of tasks.

diesel::table! {
    task (id) {
        id -> BigInt,
        name -> Text,
        completed -> Bool,
    }
}

#[cfg(any(feature = "sqlite", feature = "postgres"))]
diesel::table! {
    /// The numbers of tasks, kept by triggers. MySQL has none of it.
    task_totals (id) {
        id -> SmallInt,
        active -> BigInt,
        completed -> BigInt,
    }
}

#[cfg(feature = "postgres")]
diesel::allow_tables_to_appear_in_same_query!(task, task_totals);
