{# A session: a user's events in one domain, each at most half an hour after the one before. #}
with

interactions as (

    select * from {{ ref('fct_interactions') }}

),

interactions_with_gap as (

    select
        event_id,
        user_id,
        domain,
        occurred_at,
        occurred_at - lag(occurred_at) over user_line <= interval '30 minutes' as continues_session

    from interactions
    window user_line as (partition by user_id, domain order by occurred_at, event_id)

),

interactions_numbered as (

    select
        *,
        count(*) filter (where continues_session is not true)
            over (partition by user_id, domain order by occurred_at, event_id) as session_number

    from interactions_with_gap

),

sessions as (

    select
        user_id,
        domain,
        session_number,
        min(occurred_at) as started_at,
        max(occurred_at) as ended_at,
        count(*) as events

    from interactions_numbered
    group by user_id, domain, session_number

)

select * from sessions
