# The binary contains the templates, static files and migrations.
FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
RUN apt-get update && apt-get install --yes --no-install-recommends libpq-dev \
    && cargo build --release --locked --features postgres

FROM debian:bookworm-slim
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libpq5 ca-certificates \
    && rm -rf /var/lib/apt/lists/* \
    && useradd --system --create-home --home-dir /data tasklist
COPY --from=build /src/target/release/tasklist /usr/local/bin/tasklist
USER tasklist
# Holds SQLite's file if DATABASE_URL does not name another database.
WORKDIR /data
VOLUME /data
ENV HOST=0.0.0.0 PORT=8080 APP_ENV=production
EXPOSE 8080
CMD ["tasklist"]
