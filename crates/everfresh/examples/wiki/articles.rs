use diesel::{prelude::*, sqlite::SqliteConnection};
use everfresh::{
    Cache, DieselDatabase, DieselPool, DieselPoolError, DieselWriter, Invalidation, Lifetime, Memo,
    group_key, view_key,
};
use serde::{Deserialize, Serialize};

pub type Database = DieselPool<SqliteConnection>;
type Result<T> = std::result::Result<T, DieselPoolError>;

pub const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS article (name TEXT PRIMARY KEY NOT NULL, text TEXT NOT NULL);
    CREATE TABLE IF NOT EXISTS comment (id INTEGER PRIMARY KEY, article TEXT, text TEXT);";

diesel::table! {
    article (name) { name -> Text, text -> Text, }
}
diesel::table! {
    comment (id) { id -> Integer, article -> Text, text -> Text, }
}

#[derive(Clone, Deserialize, Insertable, Queryable, Serialize)]
#[diesel(table_name = article)]
pub struct Article {
    pub name: String,
    pub text: String,
}

#[derive(Clone, Deserialize, Queryable, Serialize)]
pub struct Comment {
    pub id: i32,
    pub text: String,
}

/// The group of everything that shows several articles.
pub const ARTICLES: &str = "articles";
pub const PER_PAGE: i64 = 50;

/// The articles of a page that contain a text.
const FOUND: Memo<(u64, String), Vec<Article>> =
    Memo::new("found", Lifetime::Forever).in_groups(&[ARTICLES]);

const ARTICLE: Memo<str, Option<Article>> = Memo::new("article", Lifetime::Forever);
const COMMENTS: Memo<str, Vec<Comment>> = Memo::new("comments", Lifetime::Forever);

/// The articles, over database and cache.
pub struct Articles {
    database: Database,
    writer: DieselWriter<Database>,
    queries: Cache,
}

impl Articles {
    pub fn new(database: Database, cache: &Cache) -> Self {
        let writer = cache.diesel_writer(database.clone());
        Self { database, writer, queries: cache.layer("query") }
    }

    pub async fn find(&self, page: u64, text: &str) -> Result<Vec<Article>> {
        let arguments = (page, text.to_owned());
        let pattern = format!("%{}%", text.replace(['%', '_'], ""));
        let query = move |conn: &mut SqliteConnection| {
            let found = article::table.filter(article::name.like(&pattern));
            let found = found.or_filter(article::text.like(&pattern)).order(article::name);
            let page = i64::try_from(page).unwrap_or(i64::MAX);
            let skipped = (page - 1).saturating_mul(PER_PAGE);
            Ok(found.offset(skipped).limit(PER_PAGE).load(conn)?)
        };
        FOUND.call(&self.queries, &arguments, async || self.database.read(query).await).await
    }

    pub async fn get(&self, name: &str) -> Result<Option<Article>> {
        let wanted = name.to_owned();
        let query = |conn: &mut _| Ok(article::table.find(wanted).first(conn).optional()?);
        ARTICLE.call(&self.queries, name, async || self.database.read(query).await).await
    }

    pub async fn comments(&self, name: &str) -> Result<Vec<Comment>> {
        let wanted = name.to_owned();
        let query = |conn: &mut _| {
            let comments = comment::table.filter(comment::article.eq(wanted)).order(comment::id);
            Ok(comments.select((comment::id, comment::text)).load(conn)?)
        };
        COMMENTS.call(&self.queries, name, async || self.database.read(query).await).await
    }

    /// Stores an article, or deletes it if its text is empty.
    pub async fn save(&self, saved: Article) -> Result<()> {
        let write = self.writer.write(move |conn| {
            diesel::delete(article::table.find(&saved.name)).execute(conn)?;
            if !saved.text.is_empty() {
                diesel::insert_into(article::table).values(&saved).execute(conn)?;
            }
            // First the queries, then the pages that are made of them.
            let queries = Invalidation::of([ARTICLE.key(&saved.name), group_key(ARTICLES)]);
            Ok(((), queries.then([page_key(&saved.name)])))
        });
        write.await
    }

    pub async fn add_comment(&self, name: String, text: String) -> Result<()> {
        let write = self.writer.write(move |conn| {
            let row = (comment::article.eq(&name), comment::text.eq(text));
            diesel::insert_into(comment::table).values(row).execute(conn)?;
            Ok(((), Invalidation::of([COMMENTS.key(&name)]).then([page_key(&name)])))
        });
        write.await
    }
}

/// The key of the page with an article.
fn page_key(name: &str) -> String {
    view_key(&format!("/wiki/{name}"))
}
