{{
    config(
        materialized='incremental',
        incremental_strategy='replace',
        on_schema_change='fail',
        incremental_predicates=[stated_after_a_change('user_id'), stated_by_a_killed_build()],
        indexes=[{'columns': ['user_id', 'event_timestamp'], 'unique': true}]
    )
}}

with

-- One day more than the longest window tells which of the first day's events go on with a session of the day before.
interactions as (

    {{ rows_in_reach(ref('fct_interactions'), 'user_id', day='occurred_date', instant='occurred_at', more_days=1) }}

),

-- A session, as in int_interactions_sessionised: events in one domain, each at most half an hour after the one before.
interactions_with_gap as (

    select
        user_id,
        since_date,
        occurred_date,
        rating,
        (occurred_at - lag(occurred_at) over user_line <= interval '30 minutes') is not true as begins_session

    from interactions
    window user_line as (partition by user_id, domain order by occurred_at, event_id)

),

activity_per_day as (

    select
        user_id,
        min(since_date) as since_date,
        {{ day_number('occurred_date') }} as active_day,
        count(*)::integer as events,
        (count(*) - count(rating))::integer as implicit,
        count(*) filter (where begins_session)::integer as sessions,
        coalesce(sum(rating), 0) as rating_sum,
        count(rating)::integer as rating_count

    from interactions_with_gap
    group by user_id, occurred_date

),

{{
    rolling_windows(['user_id'], {
        'events': window_days(), 'implicit': [90], 'sessions': [30], 'rating_sum': [90], 'rating_count': [90]
    })
}}

select
    user_id,
    {{ stated_windows('user') }},
    sessions_30d::bigint as user_sessions_30d,
    {{ recent_mean_rating() }} as user_recent_mean_rating

from windows
{% if is_incremental() %}
    where stated_day > {{ day_number('since_date') }}
{% endif %}
