-- Tables that more than one station meets at. Idempotent; applied by `make up` and by compose's init step.
create schema if not exists raw;
create schema if not exists marts;
create schema if not exists monitoring;
create schema if not exists serving;
create schema if not exists analytics;
create schema if not exists tuning;

-- Grain: one row per event and landed partition. An event that lands twice in one partition is refused as a
-- duplicate by etl; one that lands in two partitions is counted once by dbt (event_id is deterministic).
-- Ids sort by bytes, as in the marts, so that these find their rows by the index.
create table if not exists raw.interactions (
    event_id         text collate "C" not null,
    user_id          text collate "C" not null,
    item_id          text collate "C" not null,
    rating           double precision,
    occurred_at      timestamptz not null,
    domain           text not null,
    event_type       text not null,
    context          text not null default '{}',
    source           text not null,
    landed_partition text not null
) partition by list (source);

-- Events from the log. The primary key is what makes at-least-once delivery count once.
create table if not exists raw.interactions_stream partition of raw.interactions for values in ('stream');
create unique index if not exists interactions_stream_event_id on raw.interactions_stream (event_id);
create table if not exists raw.interactions_files partition of raw.interactions default;
drop index if exists raw.interactions_user_id; -- of an earlier version: it did not serve the question for an item
create index if not exists interactions_user_item on raw.interactions (user_id, item_id);

-- An installation from before ids sorted by bytes; dbt puts the view back.
do $$
begin
    if exists (
        select from information_schema.columns
        where (table_schema, table_name, column_name) = ('raw', 'interactions', 'user_id') and collation_name is null
    ) then
        drop view if exists staging.stg_raw__interactions cascade;
        alter table raw.interactions
            alter column event_id type text collate "C",
            alter column user_id type text collate "C",
            alter column item_id type text collate "C";
    end if;
end
$$;

-- Grain: one row per event that was taken out of raw.interactions since the marts were last built; an empty event_id
-- says that there were too many to list, and calls for a full build. Written by triggers, emptied by dbt.
create table if not exists raw.removed_interactions (
    event_id    text collate "C",
    user_id     text collate "C",
    item_id     text collate "C",
    occurred_at timestamptz,
    domain      text,
    removed_tx  bigint not null default pg_current_xact_id()::text::bigint
);

create or replace function raw.list_removed_interactions() returns trigger language plpgsql as $$
begin
    if tg_op = 'TRUNCATE' then
        insert into raw.removed_interactions default values;
    elsif (select count(*) from (select from gone limit 100001) as counted) > 100000 then
        insert into raw.removed_interactions default values;
    else
        insert into raw.removed_interactions (event_id, user_id, item_id, occurred_at, domain)
        select event_id, user_id, item_id, occurred_at, domain from gone;
    end if;
    return null;
end
$$;

-- `landed_tx` is the transaction that wrote a row: what a build of the marts has not seen yet is found by it
-- (dbt/macros/build.sql). Nobody writes the column. Its index has one entry per range of pages, and costs a load nothing.
-- Looked at first, since the statements would wait for everybody who writes.
do $$
begin
    if not exists (
        select from information_schema.columns
        where (table_schema, table_name, column_name) = ('raw', 'interactions', 'landed_tx')
    ) then
        alter table raw.interactions
            add column landed_tx bigint not null default pg_current_xact_id()::text::bigint;
        create trigger removed_interactions after delete on raw.interactions
            referencing old table as gone for each statement execute function raw.list_removed_interactions();
        create trigger truncated_interactions after truncate on raw.interactions
            for each statement execute function raw.list_removed_interactions();
    end if;
end
$$;

-- The same index finds the rows of a day's partition, which a load replaces.
do $$
begin
    if not exists (
        select from pg_indexes
        where (schemaname, indexname) = ('raw', 'interactions_landed_tx') and indexdef like '%landed_partition%'
    ) then
        drop index if exists raw.interactions_landed_tx;
        create index interactions_landed_tx on raw.interactions using brin (landed_tx, landed_partition)
            with (pages_per_range = 32);
    end if;
end
$$;

-- Grain: one row per user whom the stream has touched: sums that the next event of the user is added to, instead of all
-- events being counted again (streaming/activity.py). A row counts while its `loads` is the number of rows of
-- raw.interactions_loads, that is until other rows come by a file; a user who loses events loses the row.
create table if not exists raw.user_activity (
    user_id      text collate "C" primary key,
    loads        bigint not null,
    interactions bigint not null default 0,
    items        bigint not null default 0,
    rating_sum   double precision not null default 0,
    ratings      bigint not null default 0,
    last_day     date,
    days         integer[] not null default '{}'
) with (fillfactor = 50);

-- Grain: one row per statement that brought events from files or emptied the table.
create table if not exists raw.interactions_loads (load_id bigint generated always as identity primary key);

create or replace function raw.note_changed_activity() returns trigger language plpgsql as $$
begin
    if tg_op <> 'DELETE' then
        insert into raw.interactions_loads default values;
    elsif (select count(*) from (select from gone limit 100001) as counted) > 100000 then
        insert into raw.interactions_loads default values;
    else
        delete from raw.user_activity where user_id in (select user_id from gone);
    end if;
    return null;
end
$$;

do $$
begin
    if not exists (select from pg_trigger where tgname = 'activity_by_delete') then
        create trigger activity_by_delete after delete on raw.interactions
            referencing old table as gone for each statement execute function raw.note_changed_activity();
        create trigger activity_by_load after insert or update or truncate on raw.interactions
            for each statement execute function raw.note_changed_activity();
        create trigger activity_by_load after insert or update or truncate on raw.interactions_files
            for each statement execute function raw.note_changed_activity();
    end if;
end
$$;

create table if not exists raw.items (
    item_id          text not null,
    domain           text not null,
    title            text not null,
    text             text,
    categories       text[] not null default '{}',
    creators         text[] not null default '{}',
    price            double precision,
    published_year   integer,
    attributes       text not null default '{}',
    source           text not null,
    landed_partition text not null
);

create table if not exists raw.users (
    user_id          text not null,
    domain           text not null,
    attributes       text not null default '{}',
    source           text not null,
    landed_partition text not null
);

-- Grain: one row per shown item of one answer.
create table if not exists raw.impressions (
    event_id      text primary key,
    request_id    text not null,
    user_id       text not null,
    item_id       text not null,
    rank          integer not null,
    score         double precision not null,
    domain        text not null,
    variant       text not null,
    model_version text not null,
    propensity    double precision not null,
    rung          text not null,
    shown_at      timestamptz not null
);
-- Shown to whom the made-up worlds invented: said by the row itself, whoever wrote it. Nobody writes the column. Looked at
-- first, since the statement waits for everybody who writes.
do $$
begin
    if not exists (
        select from information_schema.columns
        where (table_schema, table_name, column_name) = ('raw', 'impressions', 'source')
    ) then
        alter table raw.impressions add column source text not null
            generated always as (case when starts_with(user_id, 'synthetic:') then 'synthetic' else 'stream' end) stored;
    end if;
end
$$;
-- What a version showed, for lineage and for the judgement on a version under way.
create index if not exists impressions_model_version on raw.impressions (model_version, shown_at);

-- Grain: one row per erased user, whose id it does not hold (recsys/erasure.py). What they did until then stays away.
create table if not exists raw.erased_users (
    user_digest text primary key,
    erased_at   timestamptz not null
);

-- Grain: one row per refused record. Conservation: rows read = rows landed + rows quarantined.
create table if not exists raw.quarantine (
    source           text not null,
    landed_partition text not null,
    table_name       text not null,
    reason           text not null,
    record           text not null
);

-- Grain: one row per judgement; judging again replaces the row.
create table if not exists monitoring.outcomes (
    station      text not null,
    outcome_date date not null,
    check_name   text not null,
    subject      text not null default '',
    observed     text not null,
    expected     text not null,
    verdict      text not null check (verdict in ('pass', 'warn', 'fail')),
    detail       jsonb not null default '{}',
    primary key (station, outcome_date, check_name, subject)
);

-- Grain: one row per data cut and watched column: how its values were distributed when the cut's versions were
-- registered, by groups of units (monitoring/references.py).
create table if not exists monitoring.drift_references (
    cut_id  text not null,
    subject text not null,
    kind    text not null check (kind in ('number', 'category')),
    bins    jsonb not null,
    counts  jsonb not null,
    units   integer not null,
    until   timestamptz not null,
    primary key (cut_id, subject)
);

-- Grain: one row per task and key. Written when the task's output is complete, so that the same work is not done twice.
create table if not exists monitoring.receipts (
    task        text not null,
    key         text not null,
    fingerprint text not null,
    detail      jsonb not null,
    primary key (task, key)
);

-- Grain: one row per data cut, model and metric.
create table if not exists monitoring.model_evaluations (
    cut_id  text not null,
    as_of   date not null,
    model   text not null,
    run_id  text not null,
    metric  text not null,
    value   double precision not null,
    primary key (cut_id, model, metric)
);

-- Grain: one row per target and instance shape: what the same serving process did at the shape's limits of cores and
-- memory, and what it costs by the dated price table. `kinds` says of each column what it is: measured, list price,
-- estimate. A shape that is too large for the measuring machine has estimates. Written by `python -m infra.shapes`.
create table if not exists monitoring.cloud_shapes (
    target                      text not null,
    shape                       text not null,
    vcpus                       double precision not null,
    memory_gib                  double precision not null,
    p50_ms                      double precision,
    p99_ms                      double precision,
    requests_per_s              double precision,
    usd_per_hour                double precision not null,
    usd_per_1000_requests       double precision,
    usd_per_million_batch_users double precision,
    startup_s                   double precision,
    scale_out_s                 double precision,
    configuration_lines         integer,
    kinds                       jsonb not null,
    measured_on                 date not null,
    prices_of                   date not null,
    primary key (target, shape)
);

alter table monitoring.model_evaluations add column if not exists framework text;

-- Grain: one row per finished run of a DAG.
create table if not exists monitoring.pipeline_runs (
    dag_id   text not null,
    run_id   text not null,
    run_date date not null,
    state    text not null check (state in ('success', 'failed')),
    seconds  double precision not null,
    primary key (dag_id, run_id)
);

-- Grain: one row per user, domain and rank of the latest precomputed lists.
create table if not exists serving.precomputed_lists (
    user_id       text not null,
    domain        text not null,
    rank          integer not null,
    item_id       text not null,
    score         double precision not null,
    model_version text not null,
    primary key (user_id, domain, rank)
);

-- Lists of a batch under way, as above; put in place together when all are there.
create table if not exists serving.precomputed_lists_begun (like serving.precomputed_lists);

-- Grain: one row at most: how far the batch under way has come, users in ascending order of their ids.
create table if not exists serving.batch_begun (
    fingerprint  text primary key,
    after_user   text not null,
    users        bigint not null,
    rows         bigint not null,
    cached_users bigint not null
);

-- What people look at and no SQL can say: marts that fitted models write (training/analytics). A job replaces the rows of
-- its domains; `as_of` is the day whose midnight ended the data.

-- Grain: one row per domain, day and segment. Ids are stable: a segment has the id of yesterday's that is nearest to it.
create table if not exists analytics.segment_profiles (
    as_of                date not null,
    domain               text not null,
    segment              text not null,
    description          text not null,
    users                bigint not null,
    share                double precision not null,
    events_per_user      double precision not null,
    active_days_per_user double precision not null,
    revenue_per_user     double precision,
    click_through_rate   double precision,
    favourite_categories text[] not null,
    segments             integer not null,
    silhouette           double precision,
    stability            double precision,
    centroid             jsonb not null,
    primary key (as_of, domain, segment)
);

-- Grain: one row per domain and user, of the latest day.
create table if not exists analytics.user_segments (
    domain  text not null,
    user_id text not null,
    segment text not null,
    as_of   date not null,
    primary key (domain, user_id)
);

-- Grain: one row per domain and customer; what a customer is expected to bring in the next 90 days.
create table if not exists analytics.customer_values (
    domain             text not null,
    user_id            text not null,
    purchase_days      integer not null,
    recency_days       integer not null,
    age_days           integer not null,
    mean_value         double precision,
    probability_alive  double precision not null,
    expected_purchases double precision not null,
    expected_value     double precision,
    as_of              date not null,
    primary key (domain, user_id)
);

-- Grain: one row per domain and segment: what its customers were expected to bring in the holdout, what they brought in
-- it, and what they are expected to bring in as many days from now on.
create table if not exists analytics.value_by_segment (
    domain         text not null,
    segment        text not null,
    customers      bigint not null,
    value_before   double precision,
    value_observed double precision,
    value_now      double precision,
    holdout_days   integer not null,
    as_of          date not null,
    primary key (domain, segment)
);

-- Grain: one row per domain and number of purchase days so far: predicted and observed in the holdout.
create table if not exists analytics.value_calibration (
    domain         text not null,
    purchase_days  integer not null,
    customers      bigint not null,
    predicted      double precision not null,
    observed       double precision not null,
    holdout_days   integer not null,
    as_of          date not null,
    primary key (domain, purchase_days)
);

-- Grain: one row per domain, model and parameter.
create table if not exists analytics.value_models (
    domain    text not null,
    model     text not null,
    parameter text not null,
    value     double precision not null,
    as_of     date not null,
    primary key (domain, model, parameter)
);

-- Grain: one row per domain and measure of the graph of users and items.
create table if not exists analytics.network_measures (
    domain  text not null,
    measure text not null,
    value   double precision not null,
    as_of   date not null,
    primary key (domain, measure)
);

-- Grain: one row per domain and community; x and y place it on the map.
create table if not exists analytics.network_communities (
    domain     text not null,
    community  integer not null,
    users      bigint not null,
    items      bigint not null,
    edges      bigint not null,
    internal   double precision not null,
    categories text[] not null,
    x          double precision not null,
    y          double precision not null,
    as_of      date not null,
    primary key (domain, community)
);

-- Grain: one row per domain and pair of communities with an edge between them.
create table if not exists analytics.network_links (
    domain text not null,
    source integer not null,
    target integer not null,
    edges  bigint not null,
    as_of  date not null,
    primary key (domain, source, target)
);

-- Grain: one row per domain and user or item that is among the first by influence or by bridging.
create table if not exists analytics.network_nodes (
    domain        text not null,
    kind          text not null check (kind in ('user', 'item')),
    node_id       text not null,
    title         text not null,
    community     integer not null,
    degree        integer not null,
    influence     double precision not null,
    participation double precision not null,
    is_cut_vertex boolean not null,
    as_of         date not null,
    primary key (domain, kind, node_id)
);

-- Grain: one row per ordered pair of domains.
create table if not exists analytics.domain_overlap (
    source_domain     text not null,
    target_domain     text not null,
    users             bigint not null,
    share_of_source   double precision not null,
    jaccard           double precision not null,
    activity_cosine   double precision not null,
    taste_association double precision,
    as_of             date not null,
    primary key (source_domain, target_domain)
);

-- Grain: one row per ordered pair of domains, share of the target's events that was learnt from, and bucket: how many
-- interactions in the target are known of a user ('all' for everybody). `alone` and `transferred` are ndcg@10 without and
-- with the source; `low` and `high` end the 95 % bootstrap interval of their difference. A verdict is 'undecided' where
-- too few users can be judged to say that a loss would be small.
create table if not exists analytics.transfer_verdicts (
    source_domain        text not null,
    target_domain        text not null,
    target_share         double precision not null,
    bucket               text not null check (bucket in ('all', '0', '1_to_5', '6_to_20', 'over_20')),
    users                bigint not null,
    alone                double precision not null,
    transferred          double precision not null,
    difference           double precision not null,
    low                  double precision not null,
    high                 double precision not null,
    verdict              text not null check (verdict in ('helps', 'harmless', 'negative transfer', 'undecided')),
    embedding_similarity double precision,
    as_of                date not null,
    primary key (source_domain, target_domain, target_share, bucket)
);

-- Grain: one row per item on the map of all domains: neighbours on it are alike in the vectors that domains share.
create table if not exists analytics.transfer_map (
    domain  text not null,
    item_id text not null,
    title   text,
    x       double precision not null,
    y       double precision not null,
    as_of   date not null,
    primary key (domain, item_id)
);

-- Grain: one row per item of a domain's most used: its text's direction in 32 dimensions. A catalogue has no history, so a
-- row is known at every instant (`event_timestamp` is the epoch).
create table if not exists analytics.item_texts (
    domain           text not null,
    item_id          text not null collate "C" primary key,
    event_timestamp  timestamptz not null,
    item_text_vector double precision[] not null,
    as_of            date not null
);

-- Grain: one row per domain, segment ('everybody' for all), variant and measure of the lists of the latest 28 days.
create table if not exists analytics.segment_effectiveness (
    domain  text not null,
    segment text not null,
    variant text not null,
    measure text not null,
    value   double precision not null,
    low     double precision,
    high    double precision,
    users   bigint not null,
    as_of   date not null,
    primary key (domain, segment, variant, measure)
);
