{#
    What this build has to do: everything, or only what changed since the last complete one. Decision 23.

    `intermediate.builds` holds the last complete build and the one at work. A build may be incremental where the last
    complete one had the same domains, the same code and no later `as_of`, and where not too much has changed. It reads
    again what transactions wrote that were not over when that build began (the watermark), and replaces whole users,
    item-days and days: doing the same twice gives the same, so one that was killed is simply done again.
#}

{# Share of the events above which building everything anew is quicker. #}
{% macro full_build_share() %}{{ return(0.1) }}{% endmacro %}

{# The models that an incremental build changes in place, as ids. #}
{% macro incremental_models() %}
    {%- set found = [] -%}
    {%- for node in graph.nodes.values() if node.resource_type == 'model' and node.config.materialized == 'incremental' -%}
        {%- do found.append(node.unique_id) -%}
    {%- endfor -%}
    {{ return(found) }}
{% endmacro %}

{# How many of them this command builds: 'all', 'some' or 'none'. #}
{% macro build_extent() %}
    {%- set known = incremental_models() -%}
    {%- set taken = known | select('in', selected_resources) | list -%}
    {{ return('none' if not taken else 'all' if taken | length == known | length else 'some') }}
{% endmacro %}

{# Digest of the code that decides what the rows look like; empty where dbt is called by hand. #}
{% macro build_code() %}{{ return(env_var('RECSYS_TASK_CODE', '')) }}{% endmacro %}

{# What is known of the last complete build, or none: as_of, domains, code, watermark. #}
{% macro complete_build() %}
    {%- set found = run_query("select as_of::text, domains, code, watermark from intermediate.builds where state = 'complete'") -%}
    {{ return(found.rows[0] if found.rows | length else none) }}
{% endmacro %}

{# Whether this build makes every row anew. Overrides the test that dbt's own `is_incremental()` makes. #}
{% macro should_full_refresh() %}
    {%- if not execute or flags.WHICH not in ('build', 'run') or flags.FULL_REFRESH or config.get('full_refresh') or build_extent() != 'all' -%}
        {{ return(true) }}
    {%- endif -%}
    {{ return(run_query("select is_full from intermediate.builds where state = 'at work'").rows[0][0]) }}
{% endmacro %}

{# `as_of` of the last complete build, as a day in SQL; only in an incremental build. #}
{% macro previous_as_of() %}date '{{ complete_build()[0] }}'{% endmacro %}

{# The transaction from which on the last complete build may have missed rows; only in an incremental build. #}
{% macro watermark() %}{{ complete_build()[3] }}{% endmacro %}

{# on-run-start: decide what kind of build this is, and write it down. #}
{% macro begin_build() %}
    {%- if not execute or flags.WHICH not in ('build', 'run') or build_extent() == 'none' -%}{{ return('') }}{%- endif -%}
    {%- set day = modules.datetime.date.fromisoformat(given('as_of')).isoformat() -%}
    {%- do domains() -%}
    {%- do run_query("create schema if not exists intermediate") -%}
    {%- do run_query(
        "create table if not exists intermediate.builds (
            state text primary key, as_of date not null, domains text not null, code text not null,
            watermark bigint not null, is_full boolean not null);
        alter table intermediate.builds add column if not exists is_retry boolean not null default false"
    ) -%}
    {%- set last = complete_build() -%}
    {%- set is_same = last is not none and last[1] == given('domains') and last[2] == build_code() -%}
    {%- if build_extent() == 'some' -%}
        {%- if not (is_same and last[0] == day) -%}
            {%- do run_query("delete from intermediate.builds") -%}
        {%- endif -%}
        {%- do run_query("commit") -%}
        {{ return('') }}
    {%- endif -%}
    {%- set is_full = flags.FULL_REFRESH or not is_same or last[0] > day or later_attempt(day) or not are_built()
        or is_another_server(last[3]) or too_much_changed(last[3]) -%}
    {%- do run_query(
        ("delete from intermediate.builds where state = 'complete';" if is_full else "")
        ~ "insert into intermediate.builds values ('at work', '" ~ day ~ "', '" ~ given('domains') ~ "', '" ~ build_code()
        ~ "', pg_snapshot_xmin(pg_current_snapshot())::text::bigint, " ~ is_full ~ ", false)
        on conflict (state) do update set as_of = excluded.as_of, domains = excluded.domains, code = excluded.code,
            watermark = excluded.watermark, is_full = excluded.is_full, is_retry = true;
        commit"
    ) -%}
    {%- do log("dbt build of " ~ given('domains') ~ "@" ~ day ~ ": " ~ ("everything" if is_full else "what changed"), info=true) -%}
{% endmacro %}

{# Whether a killed build had got to a later day: its rows do not belong into this one. #}
{% macro later_attempt(day) %}
    {{ return(run_query(
        "select from intermediate.builds where state = 'at work' and as_of > '" ~ day ~ "'"
    ).rows | length > 0) }}
{% endmacro %}

{# Whether all incremental models have a table. #}
{% macro are_built() %}
    {%- for id in incremental_models() -%}
        {%- set node = graph.nodes[id] -%}
        {%- if adapter.get_relation(node.database, node.schema, node.alias) is none -%}{{ return(false) }}{%- endif -%}
    {%- endfor -%}
    {{ return(true) }}
{% endmacro %}

{# Whether the transactions are not those of the server that the watermark speaks of: the warehouse was restored. #}
{% macro is_another_server(since) %}
    {{ return(run_query("select " ~ since ~ " > pg_snapshot_xmin(pg_current_snapshot())::text::bigint").rows[0][0]) }}
{% endmacro %}

{# Whether so many events came or went that changing rows in place costs more than making all. #}
{% macro too_much_changed(since) %}
    {{ return(run_query(
        "select
            exists (select from raw.removed_interactions where removed_tx >= " ~ since ~ " and event_id is null)
            or (select count(*) from raw.interactions where landed_tx >= " ~ since ~ ")
            + (select count(*) from raw.removed_interactions where removed_tx >= " ~ since ~ ")
            > " ~ full_build_share() ~ " * (
                select greatest(sum(reltuples), 1000) from pg_class
                where oid in (select inhrelid from pg_inherits where inhparent = 'raw.interactions'::regclass)
            )"
    ).rows[0][0]) }}
{% endmacro %}

{#
    on-run-end: the build at work is complete if nothing failed (an exposure is a `no-op`). Events that it left out because they lie at or after
    its end keep the watermark at the transaction that wrote them: the build that takes them in will look there.
#}
{% macro end_build(results) %}
    {%- if not execute or flags.WHICH not in ('build', 'run') or build_extent() != 'all' -%}{{ return('') }}{%- endif -%}
    {%- if results | rejectattr('status', 'in', ['success', 'pass', 'warn', 'no-op']) | list | length -%}{{ return('') }}{%- endif -%}
    {%- set last = complete_build() -%}
    {%- do run_query(
        "update intermediate.builds as build set watermark = least(build.watermark, (
            select min(landed_tx) from raw.interactions
            where occurred_at >= " ~ as_of() ~ " and domain in " ~ domains()
        ~ (" and landed_tx >= " ~ last[3] if last is not none else "") ~ "
        )) where state = 'at work';
        delete from intermediate.builds where state = 'complete';
        update intermediate.builds set state = 'complete' where state = 'at work';
        delete from raw.removed_interactions
        where removed_tx < (select watermark from intermediate.builds where state = 'complete');
        commit"
    ) -%}
{% endmacro %}

{#
    dbt's name for a strategy of our own: what the model's `incremental_predicates` name goes, what it gives comes. One
    statement a predicate: joined by `or`, no index would find the rows.
#}
{% macro get_incremental_replace_sql(arg_dict) %}
    {%- set columns = get_quoted_csv(arg_dict['dest_columns'] | map(attribute='name')) -%}
    {%- for predicate in arg_dict['incremental_predicates'] -%}
    delete from {{ arg_dict['target_relation'] }} where {{ predicate }};
    {% endfor -%}
    insert into {{ arg_dict['target_relation'] }} ({{ columns }}) select {{ columns }} from {{ arg_dict['temp_relation'] }}
{% endmacro %}

{#
    For the `incremental_predicates` of a mart with a row an entity and midnight: what it states of changed entities for
    midnights after their earliest change. dbt reads these before it knows any relation: the names are literal.
#}
{% macro stated_after_a_change(entity) -%}
    ({{ entity }}, event_timestamp) in (
        select stated.{{ entity }}, stated.event_timestamp
        from marts.{{ model.name }} as stated
        inner join (
            select {{ entity }}, min(occurred_date) as since_date
            from intermediate.int_interactions_changed
            group by {{ entity }}
        ) as changed using ({{ entity }})
        where stated.event_timestamp > changed.since_date::timestamp at time zone 'UTC'
    )
{%- endmacro %}

{# For the same: what a killed attempt of this build stated for the midnights since the last complete one. #}
{% macro stated_by_a_killed_build() -%}
    (select is_retry from intermediate.builds where state = 'at work')
    and event_timestamp > (select as_of::timestamp at time zone 'UTC' from intermediate.builds where state = 'complete')
{%- endmacro %}

{# The transaction before which every row was there when the build at work, or the last one, began: what it must have
   seen. Without a build that is known: every row. Rows that come meanwhile are the next build's. #}
{% macro seen_before() -%}
    coalesce(
        (select watermark from intermediate.builds order by state = 'at work' desc limit 1), 9223372036854775807
    )
{%- endmacro %}

{#
    Entities that this build changes, each with the day from which on: that of its earliest changed event, or the end of
    the last complete build. What a mart states of them for later midnights is stated anew; what it states for that one
    and those before stays. Only in an incremental build.
#}
{% macro changed_since(entity) -%}
    select
        {{ entity }},
        least(min(occurred_date), {{ previous_as_of() }}) as since_date

    from {{ ref('int_interactions_changed') }}
    group by {{ entity }}
{%- endmacro %}

{# post-hook: new statistics where all rows are new. A day more changes none, and a sample of all rows costs seconds. #}
{% macro analyze_what_is_new() -%}
    {%- if model.config.materialized != 'incremental' or should_full_refresh() -%}analyze {{ this }}{%- endif -%}
{%- endmacro %}

{# A condition for tests: in an incremental build only the rows that it may have changed, else all. #}
{% macro if_changed(column) %}
    {%- if execute and not should_full_refresh() -%}
        {{ column }} in (select {{ column.split('.')[-1] }} from intermediate.int_interactions_changed)
    {%- else -%}
        true
    {%- endif -%}
{% endmacro %}

{# dbt asks this for every test with a `where`: `changed: <column>` stands for that condition. #}
{% macro get_where_subquery(relation) -%}
    {%- set where = config.get('where') or '' -%}
    {%- if where.startswith('changed: ') -%}{%- set where = if_changed(where.removeprefix('changed: ')) -%}{%- endif -%}
    {%- if where and where != 'true' -%}
        {%- do return('(select * from ' ~ relation ~ ' where ' ~ where ~ ') dbt_subquery') -%}
    {%- else -%}
        {%- do return(relation) -%}
    {%- endif -%}
{%- endmacro %}

{#
    A test of a column that PostgreSQL itself keeps unique and never null, by an index that every new row must pass. To look
    for copies among all rows, as dbt's `unique` does, would find none: it took 109 s of a full build of 20 M events.
#}
{% test key_by_index(model, column_name) %}
    select '{{ column_name }}' as column_without_key
    where not exists (
        select from pg_index as index
        inner join pg_attribute as attribute
            on attribute.attrelid = index.indrelid and attribute.attnum = index.indkey[0]
        where
            index.indrelid = '{{ model }}'::regclass
            and index.indisunique and index.indisvalid and index.indimmediate
            and index.indnkeyatts = 1 and index.indpred is null
            and attribute.attname = '{{ column_name }}' and attribute.attnotnull
    )
{% endtest %}
