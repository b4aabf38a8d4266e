{{
    config(
        materialized='incremental',
        incremental_strategy='replace',
        on_schema_change='fail',
        incremental_predicates=[
            "(user_id, event_timestamp) in (
                select stated.user_id, stated.event_timestamp
                from marts.feat_user_windows as stated
                inner join (
                    select user_id, min(occurred_date) as since_date
                    from intermediate.int_interactions_changed
                    group by user_id
                ) as changed using (user_id)
                where stated.event_timestamp > changed.since_date::timestamp at time zone 'UTC'
            )",
            "(select is_retry from intermediate.builds where state = 'at work')
            and event_timestamp > (select as_of::timestamp at time zone 'UTC' from intermediate.builds where state = 'complete')"
        ],
        indexes=[{'columns': ['user_id', 'event_timestamp'], 'unique': true}]
    )
}}
-- depends_on: {{ ref('int_interactions_changed') }}

with

{% if is_incremental() %}
    changed as (

        {{ changed_since('user_id') }}

    ),
{% endif %}

interactions as (

    {% if is_incremental() %}
        -- An incremental build states of the changed users the midnights after the earliest change, of the others those
        -- that have come since: for neither it needs a day that has left the longest window by then. One day more tells
        -- which of the first day's events go on with a session of the day before.
        select
            interactions.*,
            changed.since_date

        from {{ ref('fct_interactions') }} as interactions
        inner join changed using (user_id)
        where interactions.occurred_at >= {{ utc_midnight('changed.since_date - ' ~ longest_window() ~ ' - 1') }}

        union all

        select
            interactions.*,
            {{ previous_as_of() }} as since_date

        from {{ ref('fct_interactions') }} as interactions
        where
            interactions.occurred_date >= {{ previous_as_of() }} - {{ longest_window() }} - 1
            and not exists (
                select from changed
                where changed.user_id = interactions.user_id
            )
    {% else %}
        select
            interactions.*,
            date '-infinity' as since_date

        from {{ ref('fct_interactions') }} as interactions
    {% endif %}

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
        count(*)::integer as interactions,
        (count(*) - count(rating))::integer as implicit,
        count(*) filter (where begins_session)::integer as sessions,
        coalesce(sum(rating), 0) as rating_sum,
        count(rating)::integer as rating_count

    from interactions_with_gap
    group by user_id, occurred_date

),

moves_per_day as (

    select
        user_id,
        active_day + 1 + after as stated_day,
        min(since_date) as since_date,
        sum({{ moved('interactions', 1) }}) as moved_1d,
        sum({{ moved('interactions', 7) }}) as moved_7d,
        sum({{ moved('interactions', 30) }}) as moved_30d,
        sum({{ moved('interactions', 90) }}) as moved_90d,
        sum({{ moved('implicit', 90) }}) as moved_implicit,
        sum({{ moved('sessions', 30) }}) as moved_sessions,
        sum({{ moved('rating_sum', 90) }}) as moved_rating_sum,
        sum({{ moved('rating_count', 90) }}) as moved_rating_count,
        max(active_day) filter (where after = 0) as active_day

    from activity_per_day
    cross join {{ entering_and_leaving() }}
    where active_day + 1 + after <= {{ day_number(utc_date(as_of())) }}
    group by user_id, active_day + 1 + after

),

windows as (

    select
        user_id,
        stated_day,
        since_date,
        sum(moved_1d) over so_far as events_1d,
        sum(moved_7d) over so_far as events_7d,
        sum(moved_30d) over so_far as events_30d,
        sum(moved_90d) over so_far as events_90d,
        sum(moved_implicit) over so_far as implicit_90d,
        sum(moved_sessions) over so_far as sessions_30d,
        sum(moved_rating_sum) over so_far as rating_sum,
        sum(moved_rating_count) over so_far as rating_count,
        max(active_day) over so_far as last_active_day

    from moves_per_day
    window so_far as (partition by user_id order by stated_day)

)

select
    user_id,
    {{ utc_midnight("date '1970-01-01' + stated_day") }} as event_timestamp,
    events_1d::bigint as user_events_1d,
    events_7d::bigint as user_events_7d,
    events_30d::bigint as user_events_30d,
    events_90d::bigint as user_events_90d,
    implicit_90d::bigint as user_implicit_90d,
    (stated_day - 1 - last_active_day)::bigint as user_days_since_event,
    sessions_30d::bigint as user_sessions_30d,
    round((rating_sum / nullif(rating_count, 0))::numeric, 9)::double precision as user_recent_mean_rating

from windows
{% if is_incremental() %}
    where stated_day > {{ day_number('since_date') }}
{% endif %}
