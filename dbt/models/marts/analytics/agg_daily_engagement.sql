{{ config(indexes=[{'columns': ['activity_date', 'domain'], 'unique': true}]) }}

with

days as (

    select * from {{ ref('int_domains_daily') }}

),

users as (

    select * from {{ ref('int_users_active') }}

),

first_days as (

    select
        domain,
        {{ utc_date('first_interaction_at') }} as first_date,
        {{ utc_date('min(first_interaction_at) over (partition by user_id)') }} as first_date_anywhere

    from users

),

-- On the day of a user's very first event, the domains in which the user is active are those where it is the first too.
new_users_per_day as (

    select
        domain,
        first_date as activity_date,
        count(*) as new_users

    from first_days
    where first_date = first_date_anywhere
    group by domain, first_date

)

select
    days.activity_date,
    days.domain,
    days.interactions,
    days.active_users,
    coalesce(new_users_per_day.new_users, 0) as new_users,
    days.rating_sum / nullif(days.rating_count, 0) as mean_rating

from days
left join new_users_per_day using (activity_date, domain)
