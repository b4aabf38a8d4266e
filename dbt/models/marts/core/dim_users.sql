{{ config(indexes=[{'columns': ['user_id'], 'unique': true}]) }}

with

activity_per_domain as (

    select * from {{ ref('int_users_active') }}

),

described_users as (

    select * from {{ ref('int_users_merged') }}

),

active_users as (

    select
        user_id,
        array_agg(domain order by domain) as domains,
        min(first_interaction_at) as first_interaction_at,
        max(last_interaction_at) as last_interaction_at,
        sum(interactions)::bigint as interaction_count

    from activity_per_domain
    group by user_id

),

-- A user is known because a source describes them or because they did something; most often both.
all_users as (

    select
        coalesce(active_users.user_id, described_users.user_id) as user_id,
        array(
            select distinct domain
            from unnest(active_users.domains || described_users.domains) as both_lists (domain)
            order by domain
        ) as domains,
        active_users.first_interaction_at,
        active_users.last_interaction_at,
        coalesce(active_users.interaction_count, 0) as interaction_count,
        coalesce(described_users.attributes, '{}'::jsonb) as attributes

    from active_users
    full join described_users using (user_id)

)

select * from all_users
