with

sessions as (

    select * from {{ ref('int_interactions_sessionised') }}

),

sessions_per_day as (

    select
        {{ utc_date('started_at') }} as session_date,
        domain,
        count(*) as sessions,
        count(distinct user_id) as users,
        sum(events)::bigint as events,
        count(*) filter (where events = 1) as single_event_sessions,
        percentile_cont(0.5) within group (order by events) as median_events,
        percentile_cont(0.5) within group (
            order by extract(epoch from ended_at - started_at)::double precision / 60
        ) as median_minutes

    from sessions
    group by {{ utc_date('started_at') }}, domain

)

select * from sessions_per_day
