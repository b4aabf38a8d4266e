{#
    The second opinion on the feature marts, for the tests assert_*_point_in_time.sql: a sample of a mart's rows is
    counted again from the events before each row's instant, one by one. So no row covers an event at or after its
    event_timestamp, and none misses one before it.

    The tests share the steps `features` (`sampled_rows`), `events` and `counted`. A row of `events` counts
    `interactions` events at `occurred_at`, `rating_count` of them with ratings that sum up to `rating_sum`.
#}

{#
    A fixed sample of a mart's rows. In an incremental build a smaller one, of rows that this build may have changed: of a
    mart that is `stated_anew` after an entity's earliest change, those, of the others all rows of changed entities. A mart
    that is always built whole says its `size`.
#}
{% macro sampled_rows(mart, key, size=none, stated_anew=false) %}
    {%- set is_whole, changes = size is not none, ref('int_interactions_changed') -%}
    select stated.* from {{ mart }} as stated
    {%- if not is_whole and stated_anew and not should_full_refresh() %}
    inner join ({{ changed_since(key[0]) }}) as changed using ({{ key[0] }})
    where stated.event_timestamp > {{ utc_midnight('changed.since_date') }}
    {%- elif not is_whole %}
    where {{ if_changed(key[0]) }}
    {%- endif %}
    order by
        hashtextextended({{ key | join(' || ') }}, extract(epoch from event_timestamp)::bigint),
        {{ key | join(', ') }},
        event_timestamp
    limit {{ size if is_whole else 500 if should_full_refresh() else 100 }}
{%- endmacro %}

{#
    What happened to the sampled items: each event. In an incremental build the days that are counted already: one event
    at a time would be a scan of all.
#}
{% macro events_of_items() %}
    {%- set events, days = ref('fct_interactions'), ref('int_items_daily') -%}
    {%- if should_full_refresh() -%}
    select
        item_id,
        occurred_at,
        1 as interactions,
        rating as rating_sum,
        (rating is not null)::integer as rating_count

    from {{ events }}
    {%- else -%}
    select
        item_id,
        {{ utc_midnight('active_date') }} as occurred_at,
        interactions,
        rating_sum,
        rating_count

    from {{ days }}
    {%- endif %}
    where item_id in (select item_id from features)
{%- endmacro %}

{#
    The features of `stated_windows` and the recent mean rating, of each sampled row.

    `of_entity` is the condition that an event belongs to the row's entity; `more` are further columns.
#}
{% macro recounted_windows(key, of_entity, more=none) %}
    {%- set keys = 'features.' ~ key | join(', features.') -%}
    select
        {{ keys }},
        features.event_timestamp,
        {%- for days in window_days() %}
        coalesce(
            sum(events.interactions) filter (
                where events.occurred_at >= features.event_timestamp - interval '{{ days }} days'
            ), 0
        ) as events_{{ days }}d,
        {%- endfor %}
        coalesce(sum(events.interactions - events.rating_count), 0) as implicit_90d,
        {{ utc_date('features.event_timestamp') }} - {{ utc_date('max(events.occurred_at)') }} - 1 as days_since_event,
        {%- if more %}
        {{ more }},
        {%- endif %}
        sum(events.rating_sum) / nullif(sum(events.rating_count), 0) as recent_mean_rating

    from features
    left join events
        on
            {{ of_entity }}
            and events.occurred_at < features.event_timestamp
            and events.occurred_at >= features.event_timestamp - interval '{{ longest_window() }} days'
    group by {{ keys }}, features.event_timestamp
{%- endmacro %}

{# The condition that a sampled row says anything else than the recount, or speaks of a midnight after `as_of`. #}
{% macro windows_differ(subject) -%}
    features.event_timestamp > {{ as_of() }}
    {%- for days in window_days() %}
    or features.{{ subject }}_events_{{ days }}d != counted.events_{{ days }}d
    {%- endfor %}
    or features.{{ subject }}_implicit_90d != counted.implicit_90d
    or features.{{ subject }}_days_since_event != counted.days_since_event
    or (features.{{ subject }}_recent_mean_rating is null) != (counted.recent_mean_rating is null)
    or abs(features.{{ subject }}_recent_mean_rating - counted.recent_mean_rating) > 1e-8
{%- endmacro %}
